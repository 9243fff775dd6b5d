"""The rules of the verbs that are not in a hurry: one for both engines, over their named queries."""
