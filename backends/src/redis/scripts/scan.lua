-- Reads items of a whole namespace, in the order of ids and keys. ARGV: now, bytes, rows, the id to begin with (empty: the
-- first one) and the lower bound of its keys. Answers as read.lua does, with two more: the last id that was looked at, and the
-- id of each item.
local state = call('GET', P .. 'ns')
if state ~= '0' then return { state or '-' } end
local now, bytes_left, rows = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local low, first, bound = ARGV[4] == '' and '-' or '[' .. ARGV[4], ARGV[4], ARGV[5]
local answer = { state, 0, '', '' }
while rows > 0 do
  local ids = call('ZRANGEBYLEX', P .. 'ids', low, '+', 'LIMIT', 0, 64)
  if #ids == 0 then return answer end
  for _, id in ipairs(ids) do
    local keys = call('ZRANGEBYLEX', P .. 'k:' .. id, id == first and bound or '-', '+', 'LIMIT', 0, rows)
    local ranges = #keys > 0 and ranges_of(id)
    for _, key in ipairs(keys) do
      local row = call('HGET', P .. 'm:' .. id, key)
      if row and is_visible(row, now, ranges and deleted_at(ranges, key)) then
        local value = call('HGET', P .. 'v:' .. id, key) or ''
        if #answer > 4 and #value > bytes_left then
          answer[2] = 1
          return answer
        end
        bytes_left = bytes_left - #value
        local at = #answer
        answer[at + 1], answer[at + 2], answer[at + 3], answer[at + 4] = id, key, row, value
      end
      answer[3], answer[4] = id, key
    end
    rows = rows - #keys
    if rows <= 0 then
      answer[2] = 1
      return answer
    end
    low = '(' .. id
  end
end
return answer
