"""What AWS does by itself and moto does not: alarms, scaling policies, Auto Scaling groups, hooks and spot notices."""
