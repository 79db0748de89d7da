"""What works on any machine for a user of a cloud: `replica choose` and `get`, and OpenStackClient's commands."""
