//! What every service shares: configuration, telemetry, health, lifecycle.
