-- wrk script: posts the lines of a file in turn, each thread from another place on; without a file, GETs.
-- The last line it prints is the result as JSON.
local threads = 0
local requests = {}
local at = 0

function setup(thread)
  thread:set("number", threads)
  threads = threads + 1
end

function init(arguments)
  if arguments[1] == nil then
    requests[1] = wrk.format("GET")
  else
    for line in io.lines(arguments[1]) do
      requests[#requests + 1] = wrk.format("POST", nil, { ["Content-Type"] = "application/json" }, line)
    end
  end
  at = math.floor(number * #requests / 2)
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "seconds": %.6f, "p50_ms": %.4f, "not_ok": %d, "broken": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3,
    errors.status, errors.connect + errors.read + errors.write + errors.timeout
  ))
end
