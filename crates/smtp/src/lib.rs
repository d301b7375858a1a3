//! SMTP on the wire: the delivering client and server sessions.
