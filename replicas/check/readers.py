"""Who may read locations and cached copies, and who must not."""

from .facts import Facts
from .finding import ERROR, WARNING, Finding, Findings

SHORT_SECRET = 32  # characters
# A service's own token, or the owner's with a service's beside it: Glance itself takes either for a service.
SERVICES_ADD = "rule:service_api or (service_roles:service and role:member and project_id:%(owner)s)"


def _exposure(facts: Facts) -> Findings:
    if facts.show_multiple_locations:
        yield Finding(
            WARNING,
            "show_multiple_locations is on",
            "everyone who sees an image sees every URL of it, credentials included (OSSN-0065, OSSN-0090)",
            "set show_multiple_locations = False; the replicas call needs it no more",
        )


def _readers(facts: Facts) -> Findings:
    remedy = "on every host, the same line: [replicas] signing_keys = k1:$(openssl rand -hex 32)"
    if not facts.secret_lengths and not facts.trusted_networks:
        why = "nobody may read the cached copies of this host: every request gets 403"
        yield Finding(ERROR, "neither signing_keys nor trusted_networks is set", why, remedy)
    elif not facts.secret_lengths:
        why = "hosts cannot read each other's copies: trusted_networks never covers the address of a host"
        yield Finding(ERROR, "signing_keys is not set", why, remedy)
    for number, length in enumerate(facts.secret_lengths, 1):
        if length < SHORT_SECRET:
            yield Finding(
                WARNING,
                f"signing_keys: the secret of entry {number} has {length} characters",
                "who guesses it reads every cached image",
                f"use {SHORT_SECRET} characters or more: openssl rand -hex 32",
            )


def _networks(facts: Facts) -> Findings:
    for network in facts.open_networks:
        yield Finding(
            ERROR,
            f"trusted_networks = {network} trusts everybody",
            "whoever reaches this host reads every cached image whose id it knows, private ones too; Glance does not "
            "start with it",
            "name the networks of the clients, or leave trusted_networks empty: signing_keys are enough",
        )


def _locations(facts: Facts) -> Findings:
    if not any(store.kind == "http" for store in facts.stores):
        return
    remedy = f'in the policy file: "add_image_location": "{SERVICES_ADD}" (etc/policy.yaml of glance-replicas)'
    if facts.members_add_locations is None:
        why = "whether members may add locations is not known, and Glance may not start"
        yield Finding(WARNING, "the policy file could not be read", why, "see: oslopolicy-checker --config-file ...")
    elif facts.members_add_locations:
        yield Finding(
            ERROR,
            "every member may add http locations, since an http store is enabled (policy add_image_location)",
            "Glance then reads whatever URL a member names, from this host's own address, redirects followed",
            remedy,
        )


def _certificates(facts: Facts) -> Findings:
    for url, reason in facts.unbelieved:
        yield Finding(
            ERROR,
            f"the certificate of {url} is not believed here: {reason}",
            "no host with this configuration reads that host's copies; downloads go on from the stores",
            "name the authority in https_ca_certificates_file of the http store, on every host",
        )
    if facts.believes_any_certificate and (facts.host_url or "").startswith("https:"):
        yield Finding(
            WARNING,
            "https_insecure = True in the http store",
            "whoever sits between two hosts can read signed URLs and images; what arrives wrong is still noticed",
            "set https_insecure = False, and https_ca_certificates_file for an authority of your own",
        )


RULES = (_exposure, _readers, _networks, _locations, _certificates)
