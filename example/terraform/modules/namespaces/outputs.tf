output "namespaces" {
  description = "Pod Security Standard by namespace."
  value       = var.namespaces

  # Whoever reads this wants namespaces that exist.
  depends_on = [helm_release.namespaces]
}
