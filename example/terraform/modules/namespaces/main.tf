# One release holds every namespace, so that Pod Security labels exist before the first pod and all go together at the
# end.
resource "helm_release" "namespaces" {
  name      = "${var.platform}-namespaces"
  namespace = "default" # the record must live in a namespace that this release does not delete
  chart     = "${path.module}/chart"

  upgrade_install = true
  wait            = true # on destroy too: returns when the namespaces are really gone
  timeout         = 600
  max_history     = 3

  values = [yamlencode({ platform = var.platform, namespaces = var.namespaces })]
}
