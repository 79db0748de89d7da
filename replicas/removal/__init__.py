"""What may be removed: the rules of the last copy, what they ask the ledger, and who applies them.

`last_copy` is the rule for copies on hosts, `last_durable` for copies in stores; `known` what the ledger says; `orders`
removals that somebody asks for; `keeping` what a host must not evict.
"""
