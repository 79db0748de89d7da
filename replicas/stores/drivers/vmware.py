"""vSphere stores as a kind: all of it is left to glance_store's driver."""

from ..contract import Kind


class Vmware(Kind):
    """Files in a vSphere datastore."""

    schemes = ("vsphere",)
    cost = 1
