"""The client against mosquitto and RabbitMQ, over real sockets and in real time."""
