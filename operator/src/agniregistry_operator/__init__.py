"""The operator: keeps each `AgniRegistry` resource as it is written.

```
watches ──► wake ──► observe ──► planning.plan (pure) ──► actions, status ──► execute
```
`planning` and `manifests` decide and know no Kubernetes client; everything else is a thin shell.
"""
