"""The stores behind Glance: Swift with Keystone, Ceph with its S3 gateway, Cinder."""
