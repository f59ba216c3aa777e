-- wrk -s load.lua URL -- METHOD SUFFIX KEYS: records of 200 bytes under random keys of /r.
local method, suffix, keys, body, headers
local seed = 0

function setup(thread)
  seed = seed + 1
  thread:set("seed", seed)
end

function init(arguments)
  method, suffix, keys = arguments[1], arguments[2] or "", tonumber(arguments[3])
  math.randomseed(seed)
  headers = { ["Content-Type"] = "application/json", ["Authorization"] = "Bearer owner" }
  body = '{"name":"' .. string.rep("x", 90) .. '","city":"' .. string.rep("y", 60)
    .. '","number":12345,"ok":true}'
end

function request()
  local path = "/r/key" .. math.random(keys) .. suffix
  return wrk.format(method, path, headers, method == "PUT" and body or nil)
end
