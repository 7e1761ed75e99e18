-- For wrk: three downloads of /file, then an upload to /upload. Prints the line that
-- `Program::outside` asks for.
local upload = string.rep("upload: ", 131072) -- 1 MiB
local number = 0

request = function()
  number = number + 1
  if number % 4 == 0 then
    return wrk.format("PUT", "/upload", nil, upload)
  end
  return wrk.format("GET", "/file")
end

done = function(summary, latency)
  local errors = 0
  for _, count in pairs(summary.errors) do
    errors = errors + count
  end
  local p50, p99 = latency:percentile(50), latency:percentile(99)
  print(string.format("%d %d %f %f %d", summary.requests, summary.duration, p50, p99, errors))
end
