"""What may be removed: the rule of the last copy, what it asks the ledger, and who applies it.

`last_copy` is the rule; `known` what the ledger says; `orders` removals that somebody asks for; `keeping` what a host
must not evict.
"""
