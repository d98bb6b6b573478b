//! Listeners, connections, bodies: the side of the house that faces clients.
