-- wrk: publishes single messages with a body of 1 KiB.
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"body":"' .. string.rep("x", 1022) .. '"}'
