"""Amazon Connect: contact records and agent events, JSON objects as its streams deliver them."""
