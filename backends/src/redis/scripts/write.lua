-- Applies mutations in their order. ARGV: the window in ms; the field of the position in `applied` and its number, both empty
-- without one; then the mutations: P id version count (key value kind moment)…, D id version at count key…, R id version at
-- first last, S id version at key expectation expected has_item value kind moment subject digest.
-- Answers: the namespace's state, then one entry for each mutation.
local state = call('GET', P .. 'ns')
if state ~= '0' then return { state or '-' } end
local WINDOW, FIELD, LSN = tonumber(ARGV[1]), ARGV[2], ARGV[3]
local is_applied = false
if FIELD ~= '' then
  local noted = call('HGET', P .. 'applied', FIELD)
  is_applied = noted and tonumber(noted) >= tonumber(LSN)
end

local function digits(number) return string.format('%.0f', number) end

local function due(moment, kind, id, key)
  call('ZADD', P .. 'due', moment, kind .. pack('>I2', #id) .. id .. key)
end

local function store(id, key, is_new, row, value)
  call('HSET', P .. 'm:' .. id, key, row)
  if value then
    call('HSET', P .. 'v:' .. id, key, value)
  elseif not is_new then
    call('HDEL', P .. 'v:' .. id, key)
  end
  if is_new then
    call('ZADD', P .. 'k:' .. id, 0, key)
    call('ZADD', P .. 'ids', 0, id)
  end
  local moment = sub(row, 18)
  if moment ~= '' then due(moment, 'i', id, key) end
end

local function put(id, ranges, version, key, value, kind, moment)
  local row = call('HGET', P .. 'm:' .. id, key)
  if row and not newer(version, sub(row, 1, 16)) then return end
  local deleted = ranges and deleted_at(ranges, key)
  if deleted and not newer(version, deleted) then return end
  store(id, key, not row, version .. kind .. moment, value)
end

local function bury(id, ranges, version, key, forget_at)
  local row = call('HGET', P .. 'm:' .. id, key)
  if row and not newer(version, sub(row, 1, 16)) then return end
  local deleted = ranges and deleted_at(ranges, key)
  if not row and deleted and not newer(version, deleted) then return end
  store(id, key, not row, version .. string.char(DELETED) .. forget_at, nil)
end

local RANGES_MAX, AT_ONCE = 64, 1000

local function delete_range(id, version, first, last, forget_at)
  if last ~= '' and not before(first, last) then return end
  local name = P .. 'r:' .. id
  local count, oldest = 0, nil
  for _, range in ipairs(ranges_of(id) or {}) do
    local covers = within(range.first, range.last, first) and (range.last == '' or (last ~= '' and not before(range.last, last)))
    if covers and not newer(version, range.version) then return end
    local inside = within(first, last, range.first) and (last == '' or (range.last ~= '' and not before(last, range.last)))
    if inside and newer(version, range.version) then
      call('HDEL', name, range.place)
    else
      count = count + 1
      if range.is_done and (not oldest or range.forget_at < oldest.forget_at) then oldest = range end
    end
  end
  if count >= RANGES_MAX and oldest then call('HDEL', name, oldest.place) end
  local low = first == '' and '-' or '[' .. first
  local keys = call('ZRANGEBYLEX', P .. 'k:' .. id, low, last == '' and '+' or '(' .. last, 'LIMIT', 0, AT_ONCE)
  local gone = {}
  for _, key in ipairs(keys) do
    local row = call('HGET', P .. 'm:' .. id, key)
    if not row or newer(version, sub(row, 1, 16)) then gone[#gone + 1] = key end
  end
  if #gone > 0 then
    call('HDEL', P .. 'm:' .. id, unpack(gone))
    call('HDEL', P .. 'v:' .. id, unpack(gone))
    call('ZREM', P .. 'k:' .. id, unpack(gone))
  end
  if call('EXISTS', P .. 'm:' .. id) == 0 then call('ZREM', P .. 'ids', id) end
  -- What is left of the range is hidden, and goes with the sweep.
  local is_done = #keys < AT_ONCE
  call('HSET', name, pack('>I2', #first) .. first .. last, version .. (is_done and '1' or '0') .. forget_at)
  due(is_done and forget_at or '0', 'r', id, '')
end

-- The smallest version after this one: a number of 16 bytes and one more.
local function successor(version)
  local bytes = { byte(version, 1, 16) }
  for at = 16, 1, -1 do
    if bytes[at] < 255 then
      bytes[at] = bytes[at] + 1
      return string.char(unpack(bytes))
    end
    bytes[at] = 0
  end
  return version
end

local VALUE_REMEMBERED_MAX = 1024

local function swap(id, version, at, key, kind, expected, item, subject, digest)
  local ranges = ranges_of(id)
  local deleted = ranges and deleted_at(ranges, key)
  local row = call('HGET', P .. 'm:' .. id, key)
  local current, value = nil, nil
  if row and is_visible(row, at, deleted) then
    current, value = row, call('HGET', P .. 'v:' .. id, key) or ''
  end
  local name = P .. 's:' .. version
  local answers = call('HGETALL', name)
  local answer = nil
  for entry = 1, #answers, 2 do
    local their_subject, their_digest = sub(answers[entry], 1, 8), sub(answers[entry], 9)
    if digest ~= '' and their_digest ~= '' and digest ~= their_digest then return { 'T' } end
    if their_subject == subject then answer = answers[entry + 1] end
  end
  if answer then
    local said = sub(answer, 1, 1)
    if said == 'S' then return { 's' } end
    if said == 'A' then return { 'N' } end
    if said == 'L' then return current and { 'N', current, value } or { 'N' } end
    return { 'n', sub(answer, 2), current or '', value or '' }
  end
  local floor = row and sub(row, 1, 16)
  if deleted and (not floor or newer(deleted, floor)) then floor = deleted end
  if floor == version then
    -- Forgotten, but its mark is still there: it was the item's last write, unless it looks otherwise.
    local is_left
    if current and item then
      is_left = value == item.value and byte(current, 17) == byte(item.kind)
    elseif current then
      is_left = false
    else
      is_left = not item or item.moment ~= ''
    end
    return { is_left and 's' or 'T' }
  end
  if is_applied then return current and { 'N', current, value } or { 'N' } end
  local holds
  if kind == 'a' then
    holds = not current
  elseif kind == 'v' then
    holds = current and value == expected
  else
    holds = current and sub(current, 1, 16) == expected
  end
  if holds then
    answer = 'S'
  elseif not current then
    answer = 'A'
  elseif #value > VALUE_REMEMBERED_MAX then
    answer = 'L'
  else
    local moment = sub(current, 18)
    answer = 'I' .. sub(current, 17, 17) .. pack('>I2', #moment) .. moment .. value
  end
  call('HSET', name, subject .. digest, answer)
  call('PEXPIRE', name, WINDOW)
  if not holds then return current and { 'N', current, value } or { 'N' } end
  if floor then
    local next_one = successor(floor)
    if newer(next_one, version) then version = next_one end
  end
  if item then
    store(id, key, not row, version .. item.kind .. item.moment, item.value)
  else
    store(id, key, not row, version .. string.char(DELETED) .. digits(at + WINDOW), nil)
  end
  return { 'S', version }
end

local answers = { state }
local at = 4
while at <= #ARGV do
  local op, id, version = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local answer = 1
  if op == 'P' then
    local count = tonumber(ARGV[at + 3])
    if not is_applied then
      local ranges = ranges_of(id)
      for item = 0, count - 1 do
        local first = at + 4 + 4 * item
        put(id, ranges, version, ARGV[first], ARGV[first + 1], ARGV[first + 2], ARGV[first + 3])
      end
    end
    at = at + 4 + 4 * count
  elseif op == 'D' then
    local count = tonumber(ARGV[at + 4])
    if not is_applied then
      local ranges, forget_at = ranges_of(id), digits(tonumber(ARGV[at + 3]) + WINDOW)
      for key = at + 5, at + 4 + count do bury(id, ranges, version, ARGV[key], forget_at) end
    end
    at = at + 5 + count
  elseif op == 'R' then
    if not is_applied then
      delete_range(id, version, ARGV[at + 4], ARGV[at + 5], digits(tonumber(ARGV[at + 3]) + WINDOW))
    end
    at = at + 6
  else
    local item = nil
    if ARGV[at + 7] == '1' then item = { value = ARGV[at + 8], kind = ARGV[at + 9], moment = ARGV[at + 10] } end
    answer = swap(id, version, tonumber(ARGV[at + 3]), ARGV[at + 4], ARGV[at + 5], ARGV[at + 6], item, ARGV[at + 11], ARGV[at + 12])
    at = at + 13
  end
  answers[#answers + 1] = answer
end
-- Last, since a script that fails in the middle keeps what it has done: then all is done again.
if FIELD ~= '' and not is_applied then call('HSET', P .. 'applied', FIELD, LSN) end
return answers
