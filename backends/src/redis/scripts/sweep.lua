-- Gives room back. ARGV: now, the window in ms, how many entries to look at. Answers: how many were looked at, how many were
-- removed, and 1 if there is more to do, 2 if nothing is left of a dropped namespace.
local now, WINDOW, budget = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local state = call('GET', P .. 'ns')
local looked, removed = 0, 0

if state == '1' then
  -- Dropped: all of it goes, id by id; large ones are freed in the background.
  for _, id in ipairs(call('ZRANGE', P .. 'ids', 0, budget - 1)) do
    call('UNLINK', P .. 'm:' .. id, P .. 'v:' .. id, P .. 'k:' .. id, P .. 'r:' .. id)
    call('ZREM', P .. 'ids', id)
    looked, removed = looked + 1, removed + 1
  end
  for _, member in ipairs(call('ZRANGE', P .. 'due', 0, budget - 1)) do
    local length = unpack_bytes('>I2', sub(member, 2, 3))
    call('UNLINK', P .. 'r:' .. sub(member, 4, 3 + length))
    call('ZREM', P .. 'due', member)
    looked = looked + 1
  end
  local is_done = call('EXISTS', P .. 'ids', P .. 'due') == 0
  if is_done then
    call('UNLINK', P .. 'applied')
    call('SET', P .. 'ns', '2')
  end
  return { looked, removed, is_done and 2 or 1 }
end
if state ~= '0' then return { 0, 0, state == '2' and 2 or 0 } end

local function forget(id, key)
  call('HDEL', P .. 'm:' .. id, key)
  call('HDEL', P .. 'v:' .. id, key)
  call('ZREM', P .. 'k:' .. id, key)
  if call('EXISTS', P .. 'm:' .. id) == 0 then call('ZREM', P .. 'ids', id) end
  removed = removed + 1
end

local function item(member, id, key)
  local row = call('HGET', P .. 'm:' .. id, key)
  local moment = row and sub(row, 18) or ''
  if moment == '' then
    call('ZREM', P .. 'due', member)
  elseif tonumber(moment) > now then
    call('ZADD', P .. 'due', moment, member)
  elseif byte(row, 17) == DELETED then
    forget(id, key)
    call('ZREM', P .. 'due', member)
  else
    -- An expired item leaves its version behind, as a delete does, or an older write could come back.
    local forget_at = string.format('%.0f', now + WINDOW)
    call('HSET', P .. 'm:' .. id, key, sub(row, 1, 16) .. string.char(DELETED) .. forget_at)
    call('HDEL', P .. 'v:' .. id, key)
    call('ZADD', P .. 'due', forget_at, member)
    removed = removed + 1
  end
end

-- Removes what deletes of ranges still hide, then those that are old enough: one is forgotten only when it hides nothing.
local function ranges(member, id)
  local name, next_due = P .. 'r:' .. id, nil
  for _, range in ipairs(ranges_of(id) or {}) do
    if not range.is_done then
      local low = range.first == '' and '-' or '[' .. range.first
      local high = range.last == '' and '+' or '(' .. range.last
      local at, left = 0, budget - looked
      local keys = call('ZRANGEBYLEX', P .. 'k:' .. id, low, high, 'LIMIT', 0, math.max(left, 1))
      local skipped = 0
      for _, key in ipairs(keys) do
        local row = call('HGET', P .. 'm:' .. id, key)
        if not row or newer(range.version, sub(row, 1, 16)) then forget(id, key) else skipped = skipped + 1 end
      end
      looked = looked + #keys
      -- What is newer stays in front of what is to go; a range that is full of it is walked to its end.
      if skipped == #keys and #keys > 0 then
        keys = call('ZRANGEBYLEX', P .. 'k:' .. id, low, high)
        for _, key in ipairs(keys) do
          local row = call('HGET', P .. 'm:' .. id, key)
          if not row or newer(range.version, sub(row, 1, 16)) then forget(id, key) end
        end
        looked, keys = looked + #keys, {}
      end
      if #keys == 0 then
        range.is_done = true
        call('HSET', name, range.place, range.version .. '1' .. string.format('%.0f', range.forget_at))
      else
        next_due = 0
      end
    end
    if range.is_done and range.forget_at <= now then
      call('HDEL', name, range.place)
      removed = removed + 1
    elseif range.is_done and (not next_due or range.forget_at < next_due) then
      next_due = range.forget_at
    end
  end
  if next_due then
    call('ZADD', P .. 'due', string.format('%.0f', next_due), member)
  else
    call('ZREM', P .. 'due', member)
  end
end

local members = call('ZRANGEBYSCORE', P .. 'due', '-inf', now, 'LIMIT', 0, budget)
for _, member in ipairs(members) do
  if looked >= budget then return { looked, removed, 1 } end
  looked = looked + 1
  local length = unpack_bytes('>I2', sub(member, 2, 3))
  local id, key = sub(member, 4, 3 + length), sub(member, 4 + length)
  if sub(member, 1, 1) == 'r' then ranges(member, id) else item(member, id, key) end
end
local is_more = #members == budget
  or #call('ZRANGEBYSCORE', P .. 'due', '-inf', now, 'LIMIT', 0, 1) > 0
return { looked, removed, is_more and 1 or 0 }
