"""What a model.py imports of label-studio-ml 2, for machines where the package is not installed.

This folder's parent goes to the end of ``sys.path``, so the real package always comes first.
"""

__version__ = "2.0.1"
