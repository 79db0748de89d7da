"""Migrations of the ledger, linear, one file per version."""
