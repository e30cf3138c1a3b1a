locals {
  # What each folder says of itself, for every chart in platform-apps: base files first, then those of the environment.
  # Argo CD reads a path with a slash in front from the repository's root, and takes a pattern's files in the order of
  # their names.
  facts = flatten([
    for suffix in ["", "-${var.environment}"] : ["/platform-apps/*/platform${suffix}.yaml", "/k8s/helm-charts/*/platform${suffix}.yaml"]
  ])
  own = ["values.yaml", "values-${var.environment}.yaml"]

  # A source with a path is in this repository; one with a chart says itself where it is.
  sources = [
    for source in var.component.sources : merge(
      var.repository,
      source,
      {
        helm = merge(
          {
            releaseName             = var.name
            valueFiles              = startswith(try(source.path, ""), "platform-apps/") ? concat(local.facts, local.own) : local.own
            ignoreMissingValueFiles = true
          },
          try(source.helm, {}),
        )
      },
    )
  ]

  application = {
    namespace  = "argocd"
    project    = var.project
    finalizers = ["resources-finalizer.argocd.argoproj.io"] # deleting the Application deletes what it deployed

    additionalAnnotations = merge(
      # A commit elsewhere in the repository renders nothing anew.
      { "argocd.argoproj.io/manifest-generate-paths" = join(";", concat(["."], local.facts)) },
      try(var.component.annotations, {}),
    )

    sources     = local.sources
    destination = { server = "https://kubernetes.default.svc", namespace = var.component.namespace }

    revisionHistoryLimit = 5
    syncPolicy = {
      automated = { enabled = true, prune = true, selfHeal = true }
      syncOptions = distinct(concat(
        ["ServerSideApply=true", "SkipDryRunOnMissingResource=true", "RespectIgnoreDifferences=true"],
        try(var.component.syncOptions, []),
      ))
      # Components wait for one another by retrying, about an hour long; `refresh` lets a fix that is pushed meanwhile
      # through.
      retry = { limit = 20, refresh = true, backoff = { duration = "10s", factor = 2, maxDuration = "5m" } }
    }

    ignoreDifferences = try(var.component.ignoreDifferences, [])
    info              = try(var.component.info, [])
  }
}

resource "helm_release" "argocd_app" {
  name       = "argocd-app-${var.name}"
  namespace  = "argocd"
  repository = var.chart_registry == "" ? "oci://ghcr.io/argoproj/argo-helm" : "oci://${var.chart_registry}"
  chart      = "argocd-apps"
  # renovate: datasource=docker depName=ghcr.io/argoproj/argo-helm/argocd-apps
  version = "2.0.5"

  upgrade_install = true # takes over what an apply that failed half-way left
  wait            = true # on destroy: until the finalizer is done and the Application gone
  timeout         = 900
  max_history     = 3

  values = [yamlencode({ applications = { (var.name) = local.application } })]
}
