# What both environments share. Each environment adds environments/<environment>.tfvars.
platform       = {{ cookiecutter.project_slug | jsonify }}
team           = {{ cookiecutter.team | jsonify }}
repo_url       = {{ cookiecutter.repo_url | jsonify }}
repo_revision  = {{ cookiecutter.repo_revision | jsonify }}
chart_registry = {{ cookiecutter.chart_registry | jsonify }}
