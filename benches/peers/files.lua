-- 5,000 different files in a scattered order, with the requests made beforehand.
local count = 5000
local requests = {}
local at = 0

function init(args)
  for number = 0, count - 1 do
    -- 2,003 has no factor in common with 5,000: every file comes once before any comes again.
    requests[number] = wrk.format("GET", "/many/" .. (number * 2003) % count .. ".bin")
  end
end

function request()
  at = (at + 1) % count
  return requests[at]
end
