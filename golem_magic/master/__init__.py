"""The embedded Golem: a small master on loopback that speaks the Golem REST protocol."""
