-- What all scripts begin with. KEYS[1] is the prefix of the namespace's keys, `prism:{NUMBER}:`, so that all of them lie in
-- one slot of a cluster. Layout of the keys: see STORE.md.
local P = KEYS[1]
local call, byte, sub, pack, unpack_bytes = redis.call, string.byte, string.sub, struct.pack, struct.unpack

-- Whether version `a` wins against `b`. Not by `<`: Lua compares text as the server's locale sorts it.
local function newer(a, b)
  if a == b then return false end
  local a1, a2, a3 = unpack_bytes('>I6I6I4', a)
  local b1, b2, b3 = unpack_bytes('>I6I6I4', b)
  if a1 ~= b1 then return a1 > b1 end
  if a2 ~= b2 then return a2 > b2 end
  return a3 > b3
end

-- Whether key `a` comes before `b`, byte by byte.
local function before(a, b)
  for at = 1, math.min(#a, #b) do
    local x, y = byte(a, at), byte(b, at)
    if x ~= y then return x < y end
  end
  return #a < #b
end

local function within(first, last, key)
  return not before(key, first) and (last == '' or before(key, last))
end

-- The remembered deletes of ranges of an id, or nothing.
local function ranges_of(id)
  local stored = call('HGETALL', P .. 'r:' .. id)
  if #stored == 0 then return nil end
  local ranges = {}
  for at = 1, #stored, 2 do
    local place, said = stored[at], stored[at + 1]
    local length = unpack_bytes('>I2', place)
    ranges[#ranges + 1] = {
      place = place, first = sub(place, 3, 2 + length), last = sub(place, 3 + length),
      version = sub(said, 1, 16), is_done = sub(said, 17, 17) == '1', forget_at = tonumber(sub(said, 18)),
    }
  end
  return ranges
end

-- The newest version of those that cover a key.
local function deleted_at(ranges, key)
  local found = nil
  for _, range in ipairs(ranges or {}) do
    if within(range.first, range.last, key) and (not found or newer(range.version, found)) then found = range.version end
  end
  return found
end

-- A row of `m:ID` is the version (16 bytes), the kind (one byte, 255: deleted) and the moment at which it expires, or may be
-- forgotten, as decimal digits, none: never.
local DELETED = 255
local function is_visible(row, now, deleted)
  if byte(row, 17) == DELETED or (deleted and newer(deleted, sub(row, 1, 16))) then return false end
  local moment = sub(row, 18)
  return moment == '' or tonumber(moment) > now
end
