"""The load profile: shoppers who mostly check out, and now and then meet the unstable endpoint."""

from locust import HttpUser, between, task


class Shopper(HttpUser):
    """One shopper; about one request a second while the service is quick."""

    wait_time = between(0.5, 1.5)

    @task(9)
    def checkout(self) -> None:
        """Buy."""
        self.client.get("/checkout")

    @task(1)
    def unstable(self) -> None:
        """Wait a random time."""
        self.client.get("/unstable")
