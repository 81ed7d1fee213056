-- step_back: parked (leased) -> lined_up, what was leased behind these leases ($1
-- queues, $2 messages, $3 tokens; $4: only if they have run out by now), before they
-- end otherwise than by an ack.
--
-- Index: lined_up_by_message once a lease, turns_pkey, lined_up_pkey from the key's
-- floor, parked_pkey and ready_by_message once a message that is out. Locks: the keys'
-- rows in turns, before the look (migrations/0010_lines.sql).
SELECT queue_id, message_id, token
FROM postrider.step_back($1::bigint[], $2::bigint[], $3::bigint[], $4::boolean[])
