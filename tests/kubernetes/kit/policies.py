"""What NetworkPolicies let pass, worked out from their text.

A cluster whose network plugin does not enforce them stores them without a word.

Pure: nothing is asked of a cluster. As the API says: a connection passes if the source may send it
and the target may receive it; a side that no policy of that direction selects is free.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

Policy = Mapping[str, Any]


@dataclass(frozen=True)
class Pod:
    """A pod as policies see it. ``ports``: the names of its container ports, and their numbers."""

    labels: Mapping[str, str]
    namespace: str = "ours"
    namespace_labels: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Address:
    """What is no pod: a host outside, the API server, a cloud's metadata service."""

    ip: str


Peer = Pod | Address


def passes(
    policies: Iterable[Policy], source: Peer, target: Peer, port: int, protocol: str = "TCP"
) -> bool:
    """Whether both sides let ``source`` connect to ``port`` of ``target``."""
    known = list(policies)
    return _side(known, "Egress", source, target, target, port, protocol) and _side(
        known, "Ingress", target, source, target, port, protocol
    )


def _side(
    policies: Sequence[Policy],
    direction: str,
    owner: Peer,
    other: Peer,
    target: Peer,
    port: int,
    protocol: str,
) -> bool:
    """Whether the policies that select ``owner`` let the connection with ``other`` through."""
    if isinstance(owner, Address):
        return True
    selecting = [
        policy
        for policy in policies
        if direction in policy_types(policy["spec"])
        and policy["metadata"].get("namespace", "ours") == owner.namespace
        and matches(policy["spec"].get("podSelector", {}), owner.labels)
    ]
    if not selecting:
        return True
    rules, end = ("ingress", "from") if direction == "Ingress" else ("egress", "to")
    return any(
        _peer_fits(rule.get(end), policy["metadata"].get("namespace", "ours"), other)
        and _port_fits(rule.get("ports"), target, port, protocol)
        for policy in selecting
        for rule in policy["spec"].get(rules) or []
    )


def policy_types(spec: Mapping[str, Any]) -> Sequence[str]:
    """The directions that a policy rules, by the API's default where it does not say."""
    if "policyTypes" in spec:
        return list(spec["policyTypes"])
    return ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]


def matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a label selector selects ``labels``; the empty one selects everything."""
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    for expression in selector.get("matchExpressions") or []:
        key, operator = expression["key"], expression["operator"]
        value, values = labels.get(key), expression.get("values", [])
        if operator == "In":
            fits = value in values
        elif operator == "NotIn":
            fits = value not in values
        elif operator == "Exists":
            fits = value is not None
        elif operator == "DoesNotExist":
            fits = value is None
        else:
            raise ValueError(f"found operator {operator!r}, expected one of the API's four")
        if not fits:
            return False
    return True


def _peer_fits(peers: Sequence[Mapping[str, Any]] | None, namespace: str, other: Peer) -> bool:
    # Left out or empty: everyone.
    return not peers or any(_one_fits(peer, namespace, other) for peer in peers)


def _one_fits(peer: Mapping[str, Any], namespace: str, other: Peer) -> bool:
    if block := peer.get("ipBlock"):
        # Whether a block covers pods depends on the network plugin: here it never does.
        if isinstance(other, Pod):
            return False
        address = ip_address(other.ip)
        return address in ip_network(block["cidr"]) and not any(
            address in ip_network(gap) for gap in block.get("except") or []
        )
    if isinstance(other, Address):
        return False
    if "namespaceSelector" in peer:
        here = matches(peer["namespaceSelector"] or {}, other.namespace_labels)
    else:
        here = other.namespace == namespace
    return here and matches(peer.get("podSelector") or {}, other.labels)


def _port_fits(
    ports: Sequence[Mapping[str, Any]] | None, target: Peer, port: int, protocol: str
) -> bool:
    if not ports:
        return True
    for entry in ports:
        if entry.get("protocol", "TCP") != protocol:
            continue
        wanted = entry.get("port")
        if wanted is None:
            return True
        if isinstance(wanted, str):
            wanted = target.ports.get(wanted) if isinstance(target, Pod) else None
            if wanted is None:
                continue
        if wanted <= port <= entry.get("endPort", wanted):
            return True
    return False
