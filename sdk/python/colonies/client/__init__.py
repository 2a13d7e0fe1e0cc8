"""Clients: AsyncClient, and Client, its blocking face."""

from colonies.client.asynchronous import AsyncClient
from colonies.client.blocking import Client
from colonies.client.calls import Calls
from colonies.client.members import join_proof
from colonies.client.processes import state_name, state_value
from colonies.client.rotation import rotation_proof

__all__ = ["AsyncClient", "Calls", "Client", "join_proof", "rotation_proof", "state_name", "state_value"]
