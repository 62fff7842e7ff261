-- Reads items of one id. ARGV: id, now, bytes, rows, then K key… (in order, each once) or L low high, bounds as ZRANGEBYLEX
-- takes them. Answers: the namespace's state; whether there may be more; the last key that was looked at; then key, row and
-- value of each item that can be seen, the first one whatever its size, the others while they have so many bytes together.
local state = call('GET', P .. 'ns')
if state ~= '0' then return { state or '-' } end
local id, now, bytes_left, rows = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local keys = {}
if ARGV[5] == 'K' then
  for at = 6, #ARGV do keys[#keys + 1] = ARGV[at] end
else
  keys = call('ZRANGEBYLEX', P .. 'k:' .. id, ARGV[6], ARGV[7], 'LIMIT', 0, rows)
end
local answer = { state, 0, '' }
if #keys == 0 then return answer end
if ARGV[5] ~= 'K' and #keys == rows then answer[2] = 1 end
local ranges = ranges_of(id)
for _, key in ipairs(keys) do
  local row = call('HGET', P .. 'm:' .. id, key)
  if row and is_visible(row, now, ranges and deleted_at(ranges, key)) then
    local value = call('HGET', P .. 'v:' .. id, key) or ''
    if #answer > 3 and #value > bytes_left then
      answer[2] = 1
      return answer
    end
    bytes_left = bytes_left - #value
    answer[#answer + 1], answer[#answer + 2], answer[#answer + 3] = key, row, value
  end
  answer[3] = key
end
return answer
