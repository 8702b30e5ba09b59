"""The evaluation of NetworkPolicies says what the API's reference says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies import Address, Pod, matches, passes, policy_types

WEB = Pod({"app": "web"}, ports={"http": 8080})
DATABASE = Pod({"app": "database"}, ports={"sql": 5432})
STRANGER = Pod({"app": "web"}, namespace="theirs", namespace_labels={"team": "them"})
OUTSIDE = Address("203.0.113.7")


def policy(selector=None, **spec):
    selector = {"matchLabels": {"app": "web"}} if selector is None else selector
    return {"metadata": {"name": "p"}, "spec": {"podSelector": selector, **spec}}


def test_without_a_policy_everything_passes():
    assert passes([], STRANGER, WEB, 1)


def test_a_pod_that_a_policy_selects_gets_only_what_a_rule_names():
    only = policy(ingress=[{"from": [{"podSelector": {"matchLabels": {"app": "database"}}}]}])
    assert passes([only], DATABASE, WEB, 8080)
    assert not passes([only], WEB, WEB, 8080)
    assert passes([only], WEB, DATABASE, 5432), "egress is free: the policy rules ingress only"


def test_the_rules_of_several_policies_add_up():
    closed = policy({}, policyTypes=["Ingress", "Egress"])
    out = policy(egress=[{"to": [{"podSelector": {"matchLabels": {"app": "database"}}}]}])
    into = policy(
        {"matchLabels": {"app": "database"}},
        ingress=[{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}]}],
    )
    assert not passes([closed], WEB, DATABASE, 5432)
    assert not passes([closed, out], WEB, DATABASE, 5432)
    assert passes([closed, out, into], WEB, DATABASE, 5432)
    assert not passes([closed, out, into], DATABASE, WEB, 8080)


def test_a_selector_of_pods_alone_means_the_policys_own_namespace():
    own = policy(ingress=[{"from": [{"podSelector": {}}]}])
    assert not passes([own], STRANGER, WEB, 8080)
    theirs = policy(ingress=[{"from": [{"namespaceSelector": {"matchLabels": {"team": "them"}}}]}])
    assert passes([theirs], STRANGER, WEB, 8080)
    assert not passes([theirs], DATABASE, WEB, 8080)


def test_namespace_and_pod_in_one_entry_must_both_fit_and_in_two_either():
    both = {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "database"}}}
    assert not passes([policy(ingress=[{"from": [both]}])], STRANGER, WEB, 8080)
    either = [{"namespaceSelector": {}}, {"podSelector": {"matchLabels": {"app": "database"}}}]
    assert passes([policy(ingress=[{"from": either}])], STRANGER, WEB, 8080)


@pytest.mark.parametrize(
    ("ports", "open_ports"),
    [
        (None, {80, 443, 8080}),
        ([{"port": 443}], {443}),
        ([{"port": 80, "endPort": 443}], {80, 443}),
        ([{"port": "http"}], {8080}),
        ([{"port": "nothing"}], set()),
        ([{"port": 443, "protocol": "UDP"}], set()),
        ([{}], {80, 443, 8080}),
    ],
)
def test_ports(ports, open_ports):
    rule = {"ports": ports} if ports is not None else {}
    found = {port for port in (80, 443, 8080) if passes([policy(ingress=[rule])], WEB, WEB, port)}
    assert found == open_ports


def test_a_block_covers_addresses_but_not_its_gaps_and_no_pods():
    block = {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["203.0.113.0/24"]}}
    out = policy(egress=[{"to": [block]}])
    assert passes([out], WEB, Address("198.51.100.1"), 443)
    assert not passes([out], WEB, OUTSIDE, 443)
    assert not passes([out], WEB, DATABASE, 443)


def test_an_empty_list_of_rules_lets_nothing_through_and_an_empty_rule_everything():
    assert not passes([policy(ingress=[])], DATABASE, WEB, 8080)
    assert passes([policy(ingress=[{}])], OUTSIDE, WEB, 8080)


def test_directions_that_a_policy_does_not_name_follow_from_its_rules():
    assert list(policy_types({})) == ["Ingress"]
    assert list(policy_types({"egress": [{}]})) == ["Ingress", "Egress"]
    assert list(policy_types({"policyTypes": ["Egress"]})) == ["Egress"]


@given(
    st.sampled_from(["In", "NotIn", "Exists", "DoesNotExist"]),
    st.lists(st.sampled_from("abc"), min_size=1),
    st.dictionaries(st.sampled_from(["k", "other"]), st.sampled_from("abc")),
)
def test_expressions(operator, values, labels):
    expression = {"key": "k", "operator": operator, "values": values}
    expected = {
        "In": labels.get("k") in values,
        "NotIn": labels.get("k") not in values,
        "Exists": "k" in labels,
        "DoesNotExist": "k" not in labels,
    }[operator]
    assert matches({"matchExpressions": [expression]}, labels) is expected


def test_an_unknown_operator_is_refused():
    with pytest.raises(ValueError, match="Gt"):
        matches({"matchExpressions": [{"key": "k", "operator": "Gt"}]}, {})
