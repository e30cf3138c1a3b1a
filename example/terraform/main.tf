# A component is a folder with an application.yaml. Nothing lists them: add a folder and it is deployed.
locals {
  parents = ["platform-apps", "k8s/helm-charts"]

  application_files = flatten([for parent in local.parents : tolist(fileset(var.components_root, "${parent}/*/application.yaml"))])
  chart_files       = flatten([for parent in local.parents : tolist(fileset(var.components_root, "${parent}/*/Chart.yaml"))])

  components = {
    for file in local.application_files :
    basename(dirname(file)) => merge(
      { sources = [{ path = dirname(file) }] },
      yamldecode(file("${var.components_root}/${file}")),
    )
  }

  # What a chart may require: every folder with a chart, whether it is an Application of its own or the second source of
  # others.
  folders = distinct([for file in local.chart_files : basename(dirname(file))])

  # `group/Kind` of every cluster-scoped kind that a component brings.
  cluster_kinds = sort(distinct(flatten([for component in local.components : try(component.clusterKinds, [])])))

  repository = {
    repoURL        = var.working_copy == "" ? var.repo_url : "file://${var.working_copy}"
    targetRevision = var.working_copy == "" ? var.repo_revision : "HEAD"
  }

  # Argo CD checks the registries of chart dependencies against the project too, and writes OCI ones without a scheme.
  dependency_registries = flatten([
    for file in local.chart_files : [
      for dependency in try(yamldecode(file("${var.components_root}/${file}")).dependencies, []) :
      trimprefix(dependency.repository, "oci://") if try(dependency.repository, "") != ""
    ]
  ])
  other_sources = flatten([
    for component in local.components : [for source in component.sources : try(source.repoURL, [])]
  ])
  source_repos = sort(distinct(concat([local.repository.repoURL], local.dependency_registries, local.other_sources)))

  # A namespace is as strict as the least strict component in it allows.
  levels = ["restricted", "baseline", "privileged"]
  component_namespaces = {
    for namespace in distinct([for component in local.components : component.namespace]) :
    namespace => local.levels[max([
      for component in local.components : index(local.levels, try(component.podSecurity, "restricted"))
      if component.namespace == namespace
    ]...)]
  }
  # A working copy reaches the repo-server as a hostPath volume, which only `privileged` admits.
  argocd_namespace = { argocd = var.working_copy == "" ? "restricted" : "privileged" }
}

module "namespaces" {
  source = "./modules/namespaces"

  platform   = var.platform
  namespaces = merge(local.component_namespaces, local.argocd_namespace)
}

module "argocd_server" {
  source     = "./modules/argocd-server"
  depends_on = [module.namespaces]

  environment    = var.environment
  platform       = var.platform
  team           = var.team
  namespaces     = sort(keys(local.component_namespaces))
  source_repos   = local.source_repos
  cluster_kinds  = local.cluster_kinds
  working_copy   = var.working_copy
  chart_registry = var.chart_registry
  domain         = var.domain
  ingress_class  = var.ingress_class
}

# Destroyed before Argo CD, whose controller must still be there to answer the Applications' finalizers.
module "argocd_app" {
  source     = "./modules/argocd-app"
  for_each   = local.components
  depends_on = [module.argocd_server]

  name           = each.key
  component      = each.value
  folders        = local.folders
  project        = var.team
  environment    = var.environment
  repository     = local.repository
  chart_registry = var.chart_registry
}
