environment = "production"
domain      = {{ cookiecutter.domain | jsonify }}
{%- if cookiecutter.domain %}

ingress_class = {{ cookiecutter.ingress_class | jsonify }} # as in platform-apps/{cert-manager,grafana}/values-production.yaml
{%- endif %}

# The cluster's context in your kubeconfig. Left out, the current context is used: check it before you apply.
# kube_context = "production"
