-- Argo CD's health of an AgniRegistry: resource.customizations.health.agnistack.online_AgniRegistry
-- in the ConfigMap argocd-cm. It says what kstatus (Flux) says of the same conditions.
local health = {status = "Progressing", message = "the operator has not seen it yet"}
local status = obj.status
if status == nil or status.conditions == nil then
  return health
end
local found = {}
for _, condition in ipairs(status.conditions) do
  found[condition.type] = condition
end
if found.Paused ~= nil and found.Paused.status == "True" then
  return {status = "Suspended", message = found.Paused.message}
end
if status.observedGeneration ~= obj.metadata.generation then
  health.message = "the operator has not seen the newest change yet"
  return health
end
if found.Stalled ~= nil and found.Stalled.status == "True" then
  return {status = "Degraded", message = found.Stalled.message}
end
if found.Ready ~= nil and found.Ready.status == "True" then
  return {status = "Healthy", message = found.Ready.message}
end
health.message = status.message
return health
