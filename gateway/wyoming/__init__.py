"""The Wyoming protocol, which Home Assistant speaks: https://github.com/OHF-Voice/wyoming."""
