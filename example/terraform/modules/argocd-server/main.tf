locals {
  repository = var.chart_registry == "" ? "oci://ghcr.io/argoproj/argo-helm" : "oci://${var.chart_registry}"

  platform_values = {
    configs = {
      cm = { installationID = var.platform }
      rbac = {
        "policy.default" = "" # logged in is not enough: no role, no rights
        "policy.csv"     = templatefile("${path.module}/policy.csv.tftpl", { team = var.team })
      }
    }
  }

  # A mirror keeps every image's upstream path, without the host.
  redis_mirror = { image = { repository = "${var.chart_registry}/docker/library/redis" } }
  mirror_values = {
    global = { image = { repository = "${var.chart_registry}/argoproj/argocd" } }
    redis  = local.redis_mirror
    redis-ha = merge(local.redis_mirror, {
      haproxy = { image = { repository = "${var.chart_registry}/docker/library/haproxy" } }
    })
  }

  ingress_values = {
    global = { domain = "argocd.${var.domain}" }
    server = { ingress = { enabled = true, tls = true, ingressClassName = var.ingress_class } }
  }

  # Git refuses a repository of another owner unless its configuration file names it; environment variables do not reach
  # the process that serves file://.
  gitconfig = "[safe]\n\tdirectory = ${var.working_copy}\n\tdirectory = ${var.working_copy}/.git\n"
  working_copy_values = {
    extraObjects = [{
      apiVersion = "v1"
      kind       = "ConfigMap"
      metadata   = { name = "argocd-working-copy", namespace = "argocd" }
      data       = { gitconfig = local.gitconfig }
    }]
    repoServer = {
      volumes = [
        { name = "working-copy", hostPath = { path = var.working_copy, type = "Directory" } },
        { name = "working-copy-gitconfig", configMap = { name = "argocd-working-copy" } },
      ]
      volumeMounts = [
        { name = "working-copy", mountPath = var.working_copy, readOnly = true },
        { name = "working-copy-gitconfig", mountPath = "/etc/gitconfig", subPath = "gitconfig", readOnly = true },
      ]
    }
  }

  environment_values = "${path.module}/values-${var.environment}.yaml"

  values = concat(
    [file("${path.module}/values.yaml")],
    fileexists(local.environment_values) ? [file(local.environment_values)] : [],
    [yamlencode(local.platform_values)],
    var.chart_registry == "" ? [] : [yamlencode(local.mirror_values)],
    var.domain == "" ? [] : [yamlencode(local.ingress_values)],
    var.working_copy == "" ? [] : [yamlencode(local.working_copy_values)],
  )
}

resource "helm_release" "argocd_server" {
  name       = "argocd"
  namespace  = "argocd"
  repository = local.repository
  chart      = "argo-cd"
  # renovate: datasource=docker depName=ghcr.io/argoproj/argo-helm/argo-cd
  version = "10.1.1"

  upgrade_install = true # takes over what an apply that failed half-way left
  wait            = true
  timeout         = 900
  max_history     = 3

  values = local.values
}

resource "helm_release" "project" {
  name       = "argocd-project-${var.team}"
  namespace  = "argocd"
  repository = local.repository
  chart      = "argocd-apps"
  # renovate: datasource=docker depName=ghcr.io/argoproj/argo-helm/argocd-apps
  version = "2.0.5"

  upgrade_install = true
  wait            = true
  timeout         = 300
  max_history     = 3

  values = [yamlencode({ projects = { (var.team) = local.project } })]

  depends_on = [helm_release.argocd_server] # it brings the kind AppProject
}
