-- The requests of a file, made beforehand, in a scattered order: each line is a path, and a host if there is a second word.
local requests = {}
local at = 0

function init(args)
  for line in io.lines(args[1]) do
    local path, host = line:match("^(%S+) ?(%S*)")
    requests[#requests + 1] = wrk.format("GET", path, host ~= "" and { Host = host } or nil)
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end
