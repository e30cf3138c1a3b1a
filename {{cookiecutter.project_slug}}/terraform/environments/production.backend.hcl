{%- if cookiecutter.terraform_backend == "local" -%}
# The state is a file on this machine: keep a copy, and move to a shared backend before a second person applies.
path = "environments/production.tfstate"
{%- elif cookiecutter.terraform_backend == "s3" -%}
# Credentials come from the environment (AWS_PROFILE, SSO or the runner's role), never from this file.
bucket       = "{{ cookiecutter.project_slug }}-tfstate"
key          = "production.tfstate"
region       = "{{ cookiecutter.object_storage_location if cookiecutter.object_storage == 's3' else 'us-east-1' }}"
encrypt      = true
use_lockfile = true
{%- elif cookiecutter.terraform_backend == "gcs" -%}
# Credentials come from the environment (gcloud auth application-default login, or the runner's identity).
bucket = "{{ cookiecutter.project_slug }}-tfstate"
prefix = "production"
{%- elif cookiecutter.terraform_backend == "azurerm" -%}
# Credentials come from the environment (az login, or the runner's identity). Account names have no dashes: 3-24 letters
# and digits.
resource_group_name  = "{{ cookiecutter.project_slug }}-tfstate"
storage_account_name = "{{ (cookiecutter.project_slug | replace('-', ''))[:17] }}tfstate"
container_name       = "tfstate"
key                  = "production.tfstate"
use_azuread_auth     = true
{%- else -%}
# The state is a Secret in the cluster itself, in a namespace that outlives the platform.
namespace     = "kube-system"
secret_suffix = "{{ cookiecutter.project_slug }}-production"
config_path   = "~/.kube/config"
{%- endif %}
