output "project" {
  description = "The project, as values of the chart argocd-apps."
  value       = local.project
}

output "values" {
  description = "Argo CD's values, as a list of YAML documents of which a later one wins."
  value       = local.values
}

output "rbac_policy" {
  description = "Argo CD's RBAC policy (CSV), as `argocd admin settings rbac can --policy-file` takes it."
  value       = local.platform_values.configs.rbac["policy.csv"]
}
