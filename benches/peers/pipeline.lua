-- Sixteen requests in one write. wrk counts each response.
local depth = 16
local batch

function init(args)
  local requests = {}
  for number = 1, depth do
    requests[number] = wrk.format("GET")
  end
  batch = table.concat(requests)
end

function request()
  return batch
end
