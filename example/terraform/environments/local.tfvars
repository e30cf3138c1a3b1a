# A kind cluster on this machine, as scripts/kind.sh makes it.
environment  = "local"
kube_context = "kind-acme-platform"

# The working copy, as mounted into the node: what is committed here is deployed, nothing needs a push.
working_copy = "/repository"
