-- A request every so many milliseconds on each connection: the load is the same however fast the server is.
local pause = 20

function init(arguments)
  pause = tonumber(arguments[1]) or pause
end

function delay()
  return pause
end
