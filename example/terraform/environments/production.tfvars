environment = "production"
domain      = ""

# The cluster's context in your kubeconfig. Left out, the current context is used: check it before you apply.
# kube_context = "production"
