-- What a caller calls his mails. It stands with the call, once: tags, metadata, whether it is only tried; null where
-- he says nothing. What a recipient has of his own (subject, header fields, tags, metadata) stands with his message;
-- json, not jsonb: the text goes to the renderer as it came.
alter table mailfleet.batches add column labels jsonb;
alter table mailfleet.messages add column overrides json;

-- A content may now be a file as well: kind 4. Octets of the other contents that this one brings along, as they travel: files, or a finished mail.
alter table mailfleet.contents add column carried bigint not null default 0;
