-- next_turn: lined_up -> ready | parked | dead_letters ('key-blocked'), the first
-- of each of these keys ($1 queues, $2 keys; null where $3, a message that had its
-- turn, says which), if nobody of its key has the turn any more. Up to $4 dead
-- letters of a key.
--
-- Index: turns_pkey, lined_up_pkey from the key's floor, ready_by_message and
-- parked_pkey once a message that is out, dead_letters_holding. Locks: the keys'
-- rows in turns, in order, before the look (migrations/0010_lines.sql).
--
-- The position in ready is new: what becomes ready goes to the tail, never below a
-- watermark.
SELECT queue_id, key, message_id, became, wakes_in_ms
FROM postrider.next_turn($1::bigint[], $2::text[], $3::bigint[], $4::bigint)
