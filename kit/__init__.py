"""What every Heika process shares and no domain knows: database, events, identity, errors, clock."""
