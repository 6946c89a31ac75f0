"""Judgements: where they are kept, and who gives them."""
