output "application" {
  description = "The Application, as values of the chart argocd-apps."
  value       = local.application
}
