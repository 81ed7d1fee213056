-- wrk: receives up to MAX messages (an environment variable, 1 by default) and
-- acks what came with the next request. Prints how many it acked.
local max = tonumber(os.getenv("MAX") or "1")
local json = { ["Content-Type"] = "application/json" }
local receive = wrk.format("POST", "/v1/queues/bench/receive", json, '{"max_messages":' .. max .. "}")
local acks = {}
received = 0

function request()
  return table.remove(acks) or receive
end

function response(_, _, body)
  local receipts = {}
  for receipt in string.gmatch(body, '"receipt":"([^"]+)"') do
    receipts[#receipts + 1] = '"' .. receipt .. '"'
  end
  if #receipts > 0 then
    received = received + #receipts
    local list = '{"receipts":[' .. table.concat(receipts, ",") .. "]}"
    acks[#acks + 1] = wrk.format("POST", "/v1/queues/bench/ack", json, list)
  end
end

local threads = {}
function setup(thread)
  threads[#threads + 1] = thread
end

function done(summary)
  local total = 0
  for _, thread in ipairs(threads) do
    total = total + thread:get("received")
  end
  print(string.format("Messages/sec: %.2f", total / (summary.duration / 1e6)))
end
